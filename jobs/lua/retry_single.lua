#!lua
-- Accepts the input of an ended single prediction anew.
-- ARGV: id, generation, tenant, id of the ended one, ticket, milliseconds of the mark
-- Returns what accept_single does, or 'gone' when the ended one is not there any more.
local id, generation, tenant, old, ticket, mark_ms = unpack(ARGV)
if redis.call('GET', key('generation')) ~= generation then
  return 'generation'
end
if redis.call('EXISTS', job_key(id)) == 1 then -- asked again: the answer was lost
  return redis.call('GET', inbox_key(get(id, 'model_key')) .. ':mark') == ticket and 'front' or 'ok'
end
if get(old, 'tenant') ~= tenant or not get(old, 'ended_at') then
  return 'gone'
end
local full = shortage(4 * #get(old, 'input') + 2048) -- as accept_single has it
if full then
  return full
end
create(id, 'single', now(), inherit(old, { 'form', 'model', 'version', 'sha256', 'model_key', 'input' }, {
  'tenant', tenant, 'status', 'queued', 'rows_received', 1, 'rows_total', 1, 'retry_of', old,
}))
return wait_in_inbox(id, ticket, mark_ms)
