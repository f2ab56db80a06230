#!lua
-- Adds one chunk to a batch that is being received. The same index twice changes nothing.
-- ARGV: id, upload token, index, rows, blob, nonce for tickets
-- Returns {'ok', ticket, …}: the tickets to put; or {reason} when the upload cannot go on.
local id, token, index, rows, blob, nonce = unpack(ARGV)
local reason = refusal(id, token)
if reason then
  return { reason }
end
local at = now()
if redis.call('HSETNX', job_key(id, 'rows'), index, rows) == 1 then
  redis.call('HSET', job_key(id, 'inputs'), index, blob)
  redis.call('RPUSH', job_key(id, 'waiting'), index)
  redis.call('HINCRBY', job_key(id), 'rows_received', rows)
  redis.call('HINCRBY', job_key(id), 'chunks_received', 1)
  redis.call('HINCRBY', job_key(id), 'revision', 1)
  expire(id, LIMITS.life)
end
redis.call('ZADD', key('receiving'), int(at + LIMITS.upload_deadline * 1000), id)
return { 'ok', unpack(grant(id, at, nonce)) }
