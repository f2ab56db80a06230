#!lua
-- Creates the record of a batch that retries an ended one; its chunks are copied next (copy_chunk), then it is closed.
-- ARGV: id, generation, tenant, id of the ended batch, upload token
-- Returns 'ok' (also when it was done before), 'generation' when the store has begun another life, 'gone' when the
-- ended batch is not there any more, or 'full <bytes> <free bytes>' when what is copied would not fit.
local id, generation, tenant, old, token = unpack(ARGV)
if not is_current(generation) then
  return 'generation'
end
if get(id, 'upload') == token then
  return 'ok'
end
if get(old, 'tenant') ~= tenant or not get(old, 'ended_at') then
  return 'gone'
end
local bytes = 0
for _, index in ipairs(redis.call('HKEYS', job_key(old, 'rows'))) do
  bytes = bytes + redis.call('HSTRLEN', job_key(old, 'results'), index)
    + redis.call('HSTRLEN', job_key(old, 'inputs'), index)
end
local full = shortage(bytes)
if full then
  return full
end
local at = now()
create_batch(id, tenant, at, inherit(old, { 'form', 'sha256', 'model_key', 'layout', 'row_bytes' }, {
  'status', 'receiving', 'upload', token, 'retry_of', old,
}))
extend_upload(id, at)
return 'ok'
