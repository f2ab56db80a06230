#!lua
-- Creates the record of a batch whose body is still arriving.
-- ARGV: id, generation, tenant, form, model, version, sha256, model key, layout, upload token
-- Returns 'ok' (also when it was done before), or 'generation' when the store has begun another life.
local id, generation, tenant, form, model, version, sha256, model_key, layout, token = unpack(ARGV)
if redis.call('GET', key('generation')) ~= generation then
  return 'generation'
end
if get(id, 'upload') == token then
  return 'ok'
end
local at = now()
create(id, 'batch', at, {
  'tenant', tenant, 'form', form, 'status', 'receiving', 'model', model, 'version', version, 'sha256', sha256,
  'model_key', model_key, 'layout', layout, 'upload', token,
})
redis.call('ZADD', key('receiving'), int(at + LIMITS.upload_deadline * 1000), id)
return 'ok'
