#!lua flags=allow-oom
-- Notes an attempt of leased single predictions that did not end well.
-- ARGV: token, reason, milliseconds that it took, nonce of the attempt, then ids
-- Returns how many of them the token still holds.
local token, reason, milliseconds, nonce = unpack(ARGV)
local at = now()
local held = 0
for i = 5, #ARGV do
  local id = ARGV[i]
  if holds(id, SINGLE, token) then
    local _, worker = string.match(last_lease(id, SINGLE), '^(%S+) (%S+) (%d+)$')
    note_attempt(id, SINGLE, worker, at - milliseconds, at, reason, nonce)
    held = held + 1
  end
end
return held
