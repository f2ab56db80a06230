#!lua flags=allow-oom
-- Takes back a batch whose upload did not come to its end, also when it has failed meanwhile. One that was canceled
-- stays as it is.
-- ARGV: id, upload token
-- Returns 'ok', or the reason why there was nothing to take back.
local id, token = unpack(ARGV)
local reason = refusal(id, token)
if reason and not (get(id, 'upload') == token and is_unaccepted(id)) then
  return reason
end
erase(id, 'upload_failed', now())
return 'ok'
