#!lua
-- Accepts the input of an ended single prediction anew.
-- ARGV: id, generation, tenant, id of the ended one, ticket, milliseconds of the mark
-- Returns what accept_singles does for each, or 'gone' when the ended one is not there any more.
local id, generation, tenant, old, ticket, mark_ms = unpack(ARGV)
if not is_current(generation) then
  return 'generation'
end
local said = said_before(id, get(id, 'model_key'), ticket)
if said then
  return said
end
if get(old, 'tenant') ~= tenant or not get(old, 'ended_at') then
  return 'gone'
end
local full = shortage(4 * #input_of(old) + 2048) -- as accept_singles has it
if full then
  return full
end
local at, model_key = now(), get(old, 'model_key')
local fields = inherit(old, INPUT, { 'retry_of', old })
create_single(id, tenant, model_key, get(old, 'digest'), fields, at)
return wait_in_inbox(id, model_key, inbox_key(model_key), ticket, mark_ms, at) .. ' ' .. int(at)
