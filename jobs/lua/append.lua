#!lua
-- Adds one chunk to a batch that is being received. The same index twice changes nothing.
-- ARGV: id, upload token, index, rows, blob, nonce for tickets
-- Returns {'ok', rate, backlog, ticket, …}: rows per second that a worker does of this model ('' when nobody knows),
-- bytes of input that wait or are worked on, and the tickets to put; {'full <bytes> <free bytes>'} when there is no room
-- for the chunk and its results at this moment; or {reason} when the upload cannot go on.
local id, token, index, rows, blob, nonce = unpack(ARGV)
local reason = refusal(id, token)
if reason then
  return { reason }
end
local at = now()
-- Of a body of unknown length each chunk's results are promised when it comes.
local promised = count(id, 'expected') == 0 and tonumber(get(id, 'row_bytes')) * rows or 0
local full = shortage(#blob + promised)
if full and redis.call('HEXISTS', job_key(id, 'rows'), index) == 0 then
  return { full }
end
if redis.call('HSETNX', job_key(id, 'rows'), index, rows) == 1 then
  redis.call('HSET', job_key(id, 'inputs'), index, blob)
  redis.call('RPUSH', job_key(id, 'waiting'), index)
  redis.call('HINCRBY', job_key(id), 'rows_received', rows)
  redis.call('HINCRBY', job_key(id), 'chunks_received', 1)
  redis.call('HINCRBY', job_key(id), 'backlog', #blob)
  redis.call('HINCRBY', job_key(id), 'revision', 1)
  tell(id, false)
  promise(id, promised)
  expire(id, LIMITS.life)
end
extend_upload(id, at)
return { 'ok', rate(get(id, 'model_key')), int(count(id, 'backlog')), unpack(grant(id, at, nonce)) }
