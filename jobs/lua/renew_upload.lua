#!lua flags=allow-oom
-- Moves the deadline of an upload that is slow but alive.
-- ARGV: id, upload token
-- Returns 'ok', or the reason when the upload cannot go on.
local id, token = unpack(ARGV)
local reason = refusal(id, token)
if reason then
  return reason
end
extend_upload(id, now())
return 'ok'
