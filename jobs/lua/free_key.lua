#!lua flags=allow-oom
-- Frees the idempotency key that a job has, unless it is to be kept.
-- ARGV: id
-- Returns 1 when it was freed, else 0.
local id = ARGV[1]
if has_key(id) and not get(id, 'key_kept') then
  return redis.call('DEL', idempotency_key(get(id, 'tenant'), get(id, 'idempotency')))
end
return 0
