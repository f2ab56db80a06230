#!lua flags=allow-oom
-- Has a job keep its idempotency key whatever comes of it: who was told 202 finds the job by it.
-- ARGV: id
-- Returns 1 when the job has one, else 0.
local id = ARGV[1]
if not has_key(id) then
  return 0
end
redis.call('HSET', job_key(id), 'key_kept', 1)
return 1
