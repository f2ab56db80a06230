#!lua flags=allow-oom
-- Puts a chunk behind all others: every row of it that was tried alone was to blame. When all chunks, or so many of
-- them, are like that, and no row of the job has a prediction, then it is the model, and the job fails; one whose upload
-- is still going on when it is closed (close.lua).
-- ARGV: id, index, token, state of the search, how many chunks are enough
-- Returns 'searched' when some row of the job has a prediction, so that the chunk is to be searched to its end;
-- 'put back' or 'failed'; 'refused' when the token does not hold the lease any more.
local id, index, token, state, enough = unpack(ARGV)
if not holds(id, index, token) then
  return 'refused'
end
if count(id, 'rows_ok') > 0 then
  return 'searched'
end
redis.call('HSET', job_key(id, 'parts'), index, state)
redis.call('HINCRBY', job_key(id), 'doubted', 1)
if get(id, 'status') == 'running' and fail_if_doubted(id, tonumber(enough)) then
  return 'failed'
end
end_lease(id, index)
redis.call('RPUSH', job_key(id, 'waiting'), index)
redis.call('EXPIRE', job_key(id, 'waiting'), LIMITS.life)
return 'put back'
