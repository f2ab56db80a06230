#!lua flags=allow-oom
-- Moves the deadline of an upload that is slow but alive.
-- ARGV: id, upload token
-- Returns 'ok', or the reason when the upload cannot go on.
local id, token = unpack(ARGV)
local reason = refusal(id, token)
if reason then
  return reason
end
redis.call('ZADD', key('receiving'), int(now() + LIMITS.upload_deadline * 1000), id)
return 'ok'
