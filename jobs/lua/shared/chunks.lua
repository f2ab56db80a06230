-- What is kept of single chunks while a batch is worked on.

-- Whether a chunk was put behind all others because every row of it that was tried alone was to blame (doubt.lua).
local function is_doubted(id, index)
  local state = redis.call('HGET', job_key(id, 'parts'), index)
  return state and cjson.decode(state).doubted
end

-- Drops what the search for a poison row has kept of a chunk, which has its outcome: it speaks against the model no more.
local function forget_search(id, index)
  if is_doubted(id, index) then
    redis.call('HINCRBY', job_key(id), 'doubted', -1)
  end
  if redis.call('HDEL', job_key(id, 'parts'), index) == 0 then
    return
  end
  local prefix = index .. ':'
  for _, field in ipairs(redis.call('HKEYS', job_key(id, 'parts'))) do
    if string.sub(field, 1, #prefix) == prefix then
      redis.call('HDEL', job_key(id, 'parts'), field)
    end
  end
end

-- What the results of a retried chunk are merged into (jobs/codec/patch.py): '<kind> <rows that have their prediction all
-- the same>', the result and the failures of the earlier job. Three empty texts for any other chunk.
local function patch(id, index)
  local found = redis.call('HMGET', job_key(id, 'patches'), index, index .. ':result', index .. ':failures')
  return found[1] or '', found[2] or '', found[3] or ''
end

-- Drops what the results of a chunk were merged into. Returns how many of its rows were counted as predicted already;
-- nil when it was not merged.
local function forget_patch(id, index)
  local mark = redis.call('HGET', job_key(id, 'patches'), index)
  if not mark then
    return nil
  end
  redis.call('HDEL', job_key(id, 'patches'), index, index .. ':result', index .. ':failures')
  return tonumber(string.match(mark, '%d+$'))
end

-- Follows how many chunks from the first are done without a gap.
local function move_prefix(id)
  local prefix = count(id, 'prefix')
  while redis.call('HEXISTS', job_key(id, 'done'), prefix) == 1 do
    prefix = prefix + 1
  end
  redis.call('HSET', job_key(id), 'prefix', prefix)
end

-- Fails a batch when so many of its chunks, or all that are left, were put behind all others because every row of theirs
-- that was tried alone was to blame, and no row of it has a prediction: then it is the model. Returns whether it is.
local function fail_if_doubted(id, enough)
  local doubted = count(id, 'doubted')
  local left = count(id, 'chunks_received') - count(id, 'chunks_done') - count(id, 'chunks_left_alone')
  if doubted == 0 or count(id, 'rows_ok') > 0 or doubted < math.min(left, enough) then
    return false
  end
  finish(id, 'failed', now(), 'all_rows_failed',
    'Every row that was tried alone killed the predicting process, or kept it busy for too long, and the others were '
    .. 'not tried: check that the model can predict where the workers run, then retry the job.')
  return true
end

-- Whether every chunk that this batch has to do is done, once all have come.
local function is_through(id)
  return count(id, 'chunks_done') + count(id, 'chunks_left_alone') == count(id, 'chunks_received')
end
