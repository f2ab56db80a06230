#!lua flags=allow-oom
-- Leases the single predictions that wait in the first inbox that has any.
-- ARGV: token, worker, milliseconds of the lease, how many at most, ticket, milliseconds of the mark, then model keys
-- Returns {} or {model key, workers lost over it, small batches that wait there, id, input, id, input, …}. A single over
-- which several workers were lost comes alone: what it does must not happen to others, and only what happens then is its
-- own doing.
local token, worker, lease_ms, most, ticket, mark_ms = unpack(ARGV)
local at = now()
local held = {} -- deadline and member of each lease of one that nobody has had before

-- Leases one that nobody has had before.
local function take_new(id, found)
  redis.call('HSET', job_key(id), 'status', 'running', 'started_at', int(at),
    'lease', token .. ' ' .. worker .. ' ' .. int(at))
  held[#held + 1] = int(at + lease_ms)
  held[#held + 1] = leased(id, SINGLE)
  found[#found + 1] = id
  found[#found + 1] = input_of(id)
end

-- Leases one again. Returns how many workers were lost over it while it was alone; nil when it need not be alone.
local function take_again(id, found)
  local before = count(id, 'losses:' .. SINGLE)
  local losses = take_lease(id, SINGLE, token, worker, at, lease_ms)
  redis.call('HSETNX', job_key(id), 'started_at', int(at))
  move(id, 'running')
  found[#found + 1] = id
  found[#found + 1] = input_of(id)
  if losses > before and get(id, 'alone') then
    redis.call('HINCRBY', job_key(id), 'alone', 1)
  end
  if losses >= 2 then
    redis.call('HSETNX', job_key(id), 'alone', 0)
    return count(id, 'alone')
  end
end

-- Leases what waits in an inbox.
local function take_all(model_key)
  local found, rest, alone = { model_key, 0, redis.call('LLEN', inbox_batches(model_key)) }, {}, nil
  for _, id in ipairs(redis.call('LPOP', inbox_key(model_key), most) or {}) do
    local status, lease, losses = unpack(redis.call('HMGET', job_key(id), 'status', 'lease', 'losses:' .. SINGLE))
    if alone or (losses and (lease or tonumber(losses) >= 2) and #found > 3) then
      rest[#rest + 1] = id
    elseif status == 'queued' and not lease then
      take_new(id, found)
    elseif status and next(MOVES[status]) then
      alone = take_again(id, found)
      found[2] = alone or 0
    end
  end
  return found, rest
end

for i = 7, #ARGV do
  local model_key = ARGV[i]
  local inbox, mark = inbox_key(model_key), inbox_mark(model_key)
  if redis.call('EXISTS', inbox) == 1 then
    if redis.call('GET', mark) == ticket then
      redis.call('PEXPIRE', mark, mark_ms)
    end
    redis.call('DEL', inbox_bell(model_key))
    local found, rest = take_all(model_key)
    for j = #rest, 1, -1 do
      redis.call('LPUSH', inbox, rest[j])
      redis.call('EXPIRE', inbox, LIMITS.life)
    end
    if #held > 0 then
      redis.call('ZADD', key('leases'), unpack(held))
    end
    if #found > 3 then
      return found
    end
  end
end
return {}
