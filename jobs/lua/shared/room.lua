-- How much the store still takes, and how fast the work goes.

local PACE_SECONDS = 5 -- jobs/record.py has the same
local PLENTY_BYTES = 16 * 1024 * 1024 -- single predictions of 50 ms never take so much

-- How many bytes the store has for what is not promised yet; nil when it has no limit.
-- What running batches will still write is promised: so uploads never starve results.
local function room()
  local memory = redis.call('INFO', 'memory')
  local budget = LIMITS.store_budget
  if budget == 0 then
    -- A fifth stays free for buffers of connections, for fragmentation and for what is written while it is full.
    budget = 0.8 * tonumber(string.match(memory, '\nmaxmemory:(%d+)'))
  end
  if budget == 0 then
    return nil
  end
  local promised = 0
  for _, bytes in ipairs(redis.call('HVALS', key('promised'))) do
    promised = promised + tonumber(bytes)
  end
  return budget - tonumber(string.match(memory, 'used_memory:(%d+)')) - promised
end

-- Nothing when there is room for so many bytes, else 'full <bytes> <free bytes>'.
local function shortage(bytes)
  local free = room()
  if free and bytes > free then
    return 'full ' .. int(bytes) .. ' ' .. int(math.max(free, 0))
  end
end

-- The same for a single prediction. Where there is plenty of room that is looked up twenty times a second only: it takes
-- longer than all the rest.
local function single_shortage(bytes)
  if redis.call('EXISTS', key('plenty')) == 1 then
    return nil
  end
  local free = room()
  if not free or free > PLENTY_BYTES then
    redis.call('SET', key('plenty'), 1, 'PX', 50)
    return nil
  end
  return shortage(bytes)
end

-- Changes what a batch is expected to write still; what was estimated too low is not counted against others.
local function promise(id, bytes)
  local left = tonumber(redis.call('HGET', key('promised'), id) or 0) + bytes
  if left > 0 then
    redis.call('HSET', key('promised'), id, int(left))
  else
    redis.call('HDEL', key('promised'), id)
  end
end

-- Rows per second that one worker does of a model, with all that goes with it, as text, since a script answers whole
-- numbers only; '' while nobody has measured.
local function rate(model_key)
  return redis.call('GET', key('rate:' .. model_key)) or ''
end

-- Follows the measured speed of a model; the last chunks count most.
local function learn_rate(model_key, rows, seconds)
  if rows == 0 or seconds <= 0 then
    return
  end
  local measured, known = rows / seconds, tonumber(rate(model_key))
  redis.call('SET', key('rate:' .. model_key), string.format('%.6g', known and 0.7 * known + 0.3 * measured or measured),
    'EX', LIMITS.life)
end

-- A batch's own rows per second over the last seconds: a sum that fades, so that old rows stop to count.
local function keep_pace(id, rows, at)
  local pace = tonumber(get(id, 'pace') or 0)
  local since = (at - tonumber(get(id, 'paced_at') or get(id, 'started_at') or at)) / 1000
  pace = pace * math.exp(-math.max(since, 0) / PACE_SECONDS) + rows / PACE_SECONDS
  redis.call('HSET', job_key(id), 'pace', string.format('%.6g', pace), 'paced_at', int(at))
end
