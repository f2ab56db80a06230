#!lua
-- Creates the record of a batch whose body is still arriving.
-- ARGV: id, generation, tenant, form, model key, sha256, layout, upload token,
--       bytes that a row of results will take, rows that are expected (0: nobody knows), digest of the idempotency key ('':
--       none)
-- Returns 'ok' (also when it was done before), 'generation' when the store has begun another life, 'full <bytes> <free
-- bytes>' when the results would not fit, or 'idempotency_key_in_use' when another job has the key.
local id, generation, tenant, form, model_key, sha256, layout, token = unpack(ARGV)
local row_bytes, expected, digest = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
if not is_current(generation) then
  return 'generation'
end
if get(id, 'upload') == token then
  return 'ok'
end
local at = now()
local refused = key_refusal(tenant, digest, '', at) or shortage(row_bytes * expected)
if refused then
  return refused
end
if digest ~= '' then -- first, for the tombstone stays as long as the key
  take_key(id, tenant, digest, '')
end
create_batch(id, tenant, at, {
  'form', form, 'status', 'receiving', 'model_key', model_key, 'sha256', sha256,
  'layout', layout, 'upload', token,
  'row_bytes', row_bytes, 'expected', expected,
})
promise(id, row_bytes * expected)
extend_upload(id, at)
return 'ok'
