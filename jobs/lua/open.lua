#!lua
-- Creates the record of a batch whose body is still arriving.
-- ARGV: id, generation, tenant, form, model, version, sha256, model key, layout, upload token,
--       bytes that a row of results will take, rows that are expected (0: nobody knows)
-- Returns 'ok' (also when it was done before), 'generation' when the store has begun another life, or 'full <bytes> <free
-- bytes>' when the results would not fit.
local id, generation, tenant, form, model, version, sha256, model_key, layout, token = unpack(ARGV)
local row_bytes, expected = tonumber(ARGV[11]), tonumber(ARGV[12])
if redis.call('GET', key('generation')) ~= generation then
  return 'generation'
end
if get(id, 'upload') == token then
  return 'ok'
end
local full = shortage(row_bytes * expected)
if full then
  return full
end
local at = now()
create(id, 'batch', at, {
  'tenant', tenant, 'form', form, 'status', 'receiving', 'model', model, 'version', version, 'sha256', sha256,
  'model_key', model_key, 'layout', layout, 'upload', token,
  'row_bytes', row_bytes, 'expected', expected,
})
promise(id, row_bytes * expected)
redis.call('ZADD', key('receiving'), int(at + LIMITS.upload_deadline * 1000), id)
return 'ok'
