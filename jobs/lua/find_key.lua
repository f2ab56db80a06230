#!lua flags=no-writes
-- Who has an idempotency key.
-- ARGV: tenant, digest of the key
-- Returns {id, fingerprint} of the job that it is bound to; {'idempotency_key_in_use'} while the body of another request
-- arrives with it; {} when it is free.
local tenant, digest = unpack(ARGV)
local id, fingerprint = key_owner(tenant, digest)
if not id or (fingerprint == '' and not is_uploading(id, now())) then
  return {}
end
if fingerprint == '' then
  return { 'idempotency_key_in_use' }
end
return { id, fingerprint }
