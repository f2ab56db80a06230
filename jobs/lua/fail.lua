#!lua flags=allow-oom
-- Ends jobs that cannot go on as a whole.
-- ARGV: code, message, then ids
-- Returns how many were ended.
local ended = 0
for i = 3, #ARGV do
  if finish(ARGV[i], 'failed', now(), ARGV[1], ARGV[2]) then
    ended = ended + 1
  end
end
return ended
