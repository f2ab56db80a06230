#!lua flags=allow-oom
-- Hands back leases unfinished, to the front.
-- ARGV: reason of the attempt that this was ('': none), then id, index, token of each lease. Any reason but 'shutdown'
--       says that a single prediction has killed the predictor: the chunk was disturbed.
-- Returns how many were handed back.
local reason = ARGV[1]
local at = now()
local back = 0
for i = #ARGV - 2, 2, -3 do -- from the last, so that they lie in their order again
  local id, index, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if holds(id, index, token) then
    if reason ~= '' then
      local _, worker, started_at = string.match(last_lease(id, index), '^(%S+) (%S+) (%d+)$')
      note_attempt(id, index, worker, started_at, at, reason, token)
      if reason ~= 'shutdown' then
        redis.call('HSET', job_key(id), 'disturbed:' .. index, 1)
      end
    end
    put_back(id, index)
    if index == SINGLE then
      redis.call('HDEL', job_key(id), 'lease')
    else
      redis.call('HDEL', job_key(id, 'leases'), index)
    end
    back = back + 1
  end
end
return back
