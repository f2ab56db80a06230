#!lua flags=allow-oom
-- Stops a job in any unended status. What is done stays; what was never reached stays as long.
-- ARGV: id, tenant
-- Returns 'ok' (also when it was canceled before), 'unknown', or the status that it has ended in.
local id, tenant = unpack(ARGV)
if get(id, 'tenant') ~= tenant then
  return 'unknown'
end
local moved, current = finish(id, 'canceled', now())
if moved or current == 'canceled' then
  return 'ok'
end
return current
