#!lua flags=allow-oom
-- Stores the outcomes of leased single predictions and ends their jobs.
-- ARGV: token, then id, status, number of fields and texts, fields of the record and their texts in turn, of each
-- Returns how many were stored; one that the token does not hold any more is left alone.
local token = ARGV[1]
local at = now()
local stored = 0
local i = 2
while i <= #ARGV do
  local id, status, size = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  if holds(id, SINGLE, token) and finish_single(id, status, at, { unpack(ARGV, i + 3, i + 2 + size) }) then
    stored = stored + 1
  end
  i = i + 3 + size
end
return stored
