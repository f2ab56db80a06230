#!lua flags=allow-oom
-- Stores the result of a leased chunk and, with the last chunk of a closed upload, ends the job; also when all that are
-- left speak against the model, and no row has a prediction (doubt.lua).
-- ARGV: id, index, token, ok, failed, csv bytes, surplus ('1' | '0'), keep the input ('1' | '0'), result, failures,
--       seconds that the predictor worked on it (0: they tell nothing of the model's speed)
-- Returns 'ok' (also when it was stored before), or 'refused' when the token does not hold the lease any more.
local id, index, token, ok, failed, csv_bytes, surplus, keep, result, failures = unpack(ARGV)
if redis.call('HEXISTS', job_key(id, 'done'), index) == 1 then
  return 'ok'
end
if not holds(id, index, token) then
  return 'refused'
end
redis.call('HSET', job_key(id, 'done'), index, ok .. ' ' .. failed .. ' ' .. csv_bytes)
redis.call('HSET', job_key(id, 'results'), index, result)
if failures ~= '' then
  redis.call('HSET', job_key(id, 'failures'), index, failures)
end
if surplus == '1' then
  redis.call('HSET', job_key(id), 'surplus', '1')
end
redis.call('HINCRBY', job_key(id), 'backlog', -redis.call('HSTRLEN', job_key(id, 'inputs'), index))
if keep ~= '1' then
  redis.call('HDEL', job_key(id, 'inputs'), index)
end
end_lease(id, index)
forget_search(id, index)
local known = forget_patch(id, index)
redis.call('HINCRBY', job_key(id), 'rows_ok', ok - (known or 0))
redis.call('HINCRBY', job_key(id), 'rows_failed', failed)
redis.call('HINCRBY', job_key(id), 'csv_bytes', csv_bytes)
redis.call('HINCRBY', job_key(id), 'revision', 1)
tell(id, false)
local at, rows = now(), ok + failed
promise(id, -tonumber(get(id, 'row_bytes')) * rows)
if not known then -- else it worked on some of the rows only
  learn_rate(get(id, 'model_key'), rows, tonumber(ARGV[11]))
end
keep_pace(id, rows - (known or 0), at)
redis.call('HINCRBY', job_key(id), 'chunks_done', 1)
move_prefix(id)
expire(id, LIMITS.life)
if get(id, 'status') ~= 'receiving' then
  if is_through(id) then
    finish_by_counts(id, at)
  else
    fail_if_doubted(id, math.huge) -- all that are left may have been doubted before: nobody would ask again
  end
end
return 'ok'
