-- Holding a chunk or a single prediction, and what is written down when that did not end well.

local LOST_WORKER_MS = 4000 -- twice the time between two announcements of a worker
local LOOKED_AT = 20 -- of the last attempts, when one is written down that may be there already
local MOST_ATTEMPTS = 100 -- that are kept of a job: a model that always crashes would fill the store

-- The last lease of a chunk or single that was not handed back: '<token> <worker> <started_at>'.
local function last_lease(id, index)
  if index == SINGLE then
    return get(id, 'lease')
  end
  return redis.call('HGET', job_key(id, 'leases'), index)
end

-- Whether `token` still holds the lease. A passed deadline alone voids no token.
local function holds(id, index, token)
  local lease = last_lease(id, index)
  return lease and string.match(lease, '^%S+') == token
end

-- Writes down one try that did not end well; the list keeps the last ones. A field of the record counts all.
-- `nonce` names the try: a call that is repeated because its answer was lost writes nothing.
local function note_attempt(id, index, worker, started_at, ended_at, reason, nonce)
  for _, attempt in ipairs(redis.call('LRANGE', job_key(id, 'attempts'), -LOOKED_AT, -1)) do
    if string.find(attempt, nonce, 1, true) then
      return
    end
  end
  redis.call('RPUSH', job_key(id, 'attempts'), cjson.encode({
    chunk = index == SINGLE and cjson.null or tonumber(index), worker = worker, started_at = tonumber(started_at),
    ended_at = ended_at, reason = reason, counted = reason ~= 'shutdown', nonce = nonce,
  }))
  redis.call('LTRIM', job_key(id, 'attempts'), -MOST_ATTEMPTS, -1)
  redis.call('EXPIRE', job_key(id, 'attempts'), LIMITS.life)
  redis.call('HINCRBY', job_key(id), 'attempts', 1)
  redis.call('HINCRBY', job_key(id), 'revision', 1)
end

-- Leases a chunk or single to a worker. A lease that was never handed back nor handed in, and whose worker has not been
-- heard of since, was lost with the worker: that is an attempt. Returns how many workers were lost over it.
local function take_lease(id, index, token, worker, at, lease_ms)
  local before = last_lease(id, index)
  if before then
    local lost, other, started_at = string.match(before, '^(%S+) (%S+) (%d+)$')
    local heard_at = tonumber(other and redis.call('ZSCORE', key('workers'), other) or 0)
    if other and other ~= worker and at - heard_at > LOST_WORKER_MS then
      local stopped = redis.call('EXISTS', key('stopped:' .. other)) == 1
      note_attempt(id, index, other, started_at, at, stopped and 'shutdown' or 'worker_lost', lost)
      if not stopped then
        redis.call('HINCRBY', job_key(id), 'losses:' .. index, 1)
      end
    end
  end
  local lease = token .. ' ' .. worker .. ' ' .. int(at)
  if index == SINGLE then
    redis.call('HSET', job_key(id), 'lease', lease)
  else
    redis.call('HSET', job_key(id, 'leases'), index, lease)
    redis.call('EXPIRE', job_key(id, 'leases'), LIMITS.life)
  end
  redis.call('ZADD', key('leases'), int(at + lease_ms), leased(id, index))
  return count(id, 'losses:' .. index)
end

-- Ends the lease of a chunk whose holder is through with it.
local function end_lease(id, index)
  redis.call('HDEL', job_key(id, 'leases'), index)
  if redis.call('ZREM', key('leases'), leased(id, index)) == 0 then -- the sweep has put it back already
    redis.call('LREM', job_key(id, 'waiting'), 0, index)
  end
end

-- Puts a leased chunk or single back to the front of what waits.
local function put_back(id, index)
  if redis.call('ZREM', key('leases'), leased(id, index)) == 0 then
    return -- the sweep has put it back already
  end
  if index == SINGLE then
    local inbox = inbox_key(get(id, 'model_key'))
    redis.call('LPUSH', inbox, id)
    redis.call('EXPIRE', inbox, LIMITS.life)
    redis.call('SADD', key('inboxes'), get(id, 'model_key'))
  else
    redis.call('LPUSH', job_key(id, 'waiting'), index)
    redis.call('EXPIRE', job_key(id, 'waiting'), LIMITS.life)
  end
end
