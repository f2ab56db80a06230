#!lua flags=allow-oom
-- Stores the result of a leased chunk and, with the last chunk of a closed upload, ends the job.
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
redis.call('HDEL', job_key(id, 'leases'), index)
redis.call('HDEL', job_key(id, 'crashes'), index)
if redis.call('ZREM', key('leases'), leased(id, index)) == 0 then -- its deadline had passed
  redis.call('LREM', job_key(id, 'waiting'), 0, index)
end
redis.call('HINCRBY', job_key(id), 'rows_ok', ok)
redis.call('HINCRBY', job_key(id), 'rows_failed', failed)
redis.call('HINCRBY', job_key(id), 'csv_bytes', csv_bytes)
redis.call('HINCRBY', job_key(id), 'revision', 1)
local at, rows = now(), ok + failed
promise(id, -tonumber(get(id, 'row_bytes')) * rows)
learn_rate(get(id, 'model_key'), rows, tonumber(ARGV[11]))
keep_pace(id, rows, at)
local done = redis.call('HINCRBY', job_key(id), 'chunks_done', 1)
local prefix = count(id, 'prefix')
while redis.call('HEXISTS', job_key(id, 'done'), prefix) == 1 do
  prefix = prefix + 1
end
redis.call('HSET', job_key(id), 'prefix', prefix)
expire(id, LIMITS.life)
if get(id, 'status') ~= 'receiving' and done == count(id, 'chunks_received') then
  finish_by_counts(id, at)
end
return 'ok'
