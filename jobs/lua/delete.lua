#!lua flags=allow-oom
-- Erases input and results of a job now, in any status.
-- ARGV: id, tenant
-- Returns 'ok' or 'unknown'.
local id, tenant = unpack(ARGV)
if get(id, 'tenant') ~= tenant then
  return 'unknown'
end
erase(id, 'job_deleted', now())
return 'ok'
