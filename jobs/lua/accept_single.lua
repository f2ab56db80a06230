#!lua
-- Accepts a single prediction and puts it into the inbox of its model version.
-- ARGV: id, generation, tenant, model, version, sha256, model key, input, ticket, milliseconds of the mark,
--       digest of the idempotency key ('': none), fingerprint of the request
-- Returns 'generation', 'full <bytes> <free bytes>', 'ok' (a valid mark stands, so a worker is on its way), or 'front'
-- or 'back': where to put the ticket. It goes to the front unless no batch slice ran since the last one: so neither starves the other.
-- When the idempotency key is taken: 'same <id>' by a job of the same request, else 'idempotency_key_in_use' or
-- 'idempotency_key_reused'.
local id, generation, tenant, model, version, sha256, model_key, input, ticket, mark_ms, digest, fingerprint = unpack(ARGV)
if redis.call('GET', key('generation')) ~= generation then
  return 'generation'
end
if redis.call('EXISTS', job_key(id)) == 1 then -- asked again: the answer was lost
  return redis.call('GET', inbox_key(model_key) .. ':mark') == ticket and 'front' or 'ok'
end
local at = now()
local refused = key_refusal(tenant, digest, fingerprint, at)
  or shortage(4 * #input + 2048) -- the record with its tombstone and its result
if refused then
  return refused
end
if digest ~= '' then
  take_key(id, tenant, digest, fingerprint)
end
create(id, 'single', at, {
  'tenant', tenant, 'form', 'json', 'status', 'queued', 'model', model, 'version', version, 'sha256', sha256,
  'model_key', model_key, 'input', input, 'rows_received', 1, 'rows_total', 1,
})
return wait_in_inbox(id, ticket, mark_ms)
