#!lua flags=allow-oom
-- Frees the idempotency key that a job has.
-- ARGV: id
-- Returns 1 when the job had one, else 0.
local id = ARGV[1]
local tenant, digest = get(id, 'tenant'), get(id, 'idempotency')
if digest and key_owner(tenant, digest) == id then
  return redis.call('DEL', idempotency_key(tenant, digest))
end
return 0
