#!lua flags=allow-oom
-- Hands back leases unfinished, to the front. A crash of the predictor counts, a shutdown does not.
-- ARGV: counted ('1' | '0'), then id, index, token of each lease
-- Returns how many were handed back.
local counted = ARGV[1]
local back = 0
for i = 2, #ARGV, 3 do
  local id, index, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if holds(id, index, token) then
    put_back(id, index)
    if index == SINGLE then
      redis.call('HDEL', job_key(id), 'lease')
    else
      redis.call('HDEL', job_key(id, 'leases'), index)
      if counted == '1' then
        redis.call('HINCRBY', job_key(id, 'crashes'), index, 1)
        redis.call('EXPIRE', job_key(id, 'crashes'), LIMITS.life)
      end
    end
    back = back + 1
  end
end
return back
