#!lua flags=allow-oom
-- Takes back a batch whose upload did not come to its end. A job that was canceled meanwhile stays as it is.
-- ARGV: id, upload token
-- Returns 'ok', or the reason why there was nothing to take back.
local id, token = unpack(ARGV)
local reason = refusal(id, token)
if reason then
  return reason
end
erase(id, 'upload_failed', now())
return 'ok'
