#!lua flags=allow-oom
-- Keeps an ended job while somebody downloads it: moves its expiry when that is near.
-- ARGV: id, seconds that it has to live on at least
-- Returns 1 while the job is there, else 0.
local id, seconds = ARGV[1], tonumber(ARGV[2])
if not get(id, 'ended_at') then
  return get(id, 'status') and 1 or 0
end
if redis.call('TTL', job_key(id)) < seconds then
  local expires_at = now() + seconds * 1000
  redis.call('HSET', job_key(id), 'expires_at', int(expires_at))
  expire(id, seconds)
  bury(id, 'job_expired', expires_at)
end
return 1
