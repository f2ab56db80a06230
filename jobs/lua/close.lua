#!lua
-- Closes an upload: this is the acceptance of a batch. Ends the job when every chunk is already in, or doubted.
-- ARGV: id, upload token, number of chunks, fingerprint of the request (used if it came with an idempotency key)
-- Returns 'ok' (also when it was closed before by the same token), or the reason why it is refused.
local id, token, chunks, fingerprint = unpack(ARGV)
if get(id, 'closed') == token then
  return 'ok'
end
local reason = refusal(id, token)
if reason then
  return reason
end
if count(id, 'chunks_received') ~= tonumber(chunks) then
  return 'upload_failed'
end
redis.call('HSET', job_key(id), 'closed', token, 'rows_total', int(count(id, 'rows_received')))
local digest = get(id, 'idempotency')
if digest then
  take_key(id, get(id, 'tenant'), digest, fingerprint)
end
redis.call('ZREM', key('receiving'), id)
if count(id, 'expected') > 0 then
  -- The rows are known now: what was promised for more of them is free again.
  local left = count(id, 'rows_received') - count(id, 'rows_ok') - count(id, 'rows_failed')
  redis.call('HDEL', key('promised'), id)
  promise(id, left * tonumber(get(id, 'row_bytes')))
end
if is_through(id) then
  finish_by_counts(id, now())
elseif not fail_if_doubted(id, math.huge) then -- all may have been doubted before: nobody would ask again
  move(id, get(id, 'started_at') and 'running' or 'queued')
end
return 'ok'
