#!lua
-- Accepts a single prediction and puts it into the inbox of its model version.
-- ARGV: id, generation, tenant, model, version, sha256, model key, input, ticket, milliseconds of the mark
-- Returns 'generation', 'full <bytes> <free bytes>', 'ok' (a valid mark stands, so a worker is on its way), or 'front' or 'back': where to put the
-- ticket. It goes to the front unless no batch slice ran since the last one: so neither starves the other.
local id, generation, tenant, model, version, sha256, model_key, input, ticket, mark_ms = unpack(ARGV)
if redis.call('GET', key('generation')) ~= generation then
  return 'generation'
end
if redis.call('EXISTS', job_key(id)) == 1 then -- asked again: the answer was lost
  return redis.call('GET', inbox_key(model_key) .. ':mark') == ticket and 'front' or 'ok'
end
local full = shortage(4 * #input + 2048) -- the record with its tombstone and its result
if full then
  return full
end
create(id, 'single', now(), {
  'tenant', tenant, 'form', 'json', 'status', 'queued', 'model', model, 'version', version, 'sha256', sha256,
  'model_key', model_key, 'input', input, 'rows_received', 1, 'rows_total', 1,
})
redis.call('RPUSH', inbox_key(model_key), id)
redis.call('EXPIRE', inbox_key(model_key), LIMITS.life)
redis.call('SADD', key('inboxes'), model_key)
if live_workers(now()) == 0 and redis.call('LLEN', TICKETS) > 0 then
  return 'ok' -- nobody is there to take tickets; the sweep asks when somebody is
end
if not redis.call('SET', inbox_key(model_key) .. ':mark', ticket, 'NX', 'PX', mark_ms) then
  return 'ok'
end
if redis.call('SET', key('turn'), 'inbox', 'GET', 'EX', 60) == 'inbox' then
  return 'back'
end
return 'front'
