#!lua flags=allow-oom
-- Leases the single predictions that wait in the first inbox that has any.
-- ARGV: token, worker, milliseconds of the lease, how many at most, ticket, milliseconds of the mark, then model keys
-- Returns {} or {model key, workers lost over it, id, input, id, input, …}. A single over which several workers were
-- lost comes alone: what it does must not happen to others, and only what happens then is its own doing.
local token, worker, lease_ms, most, ticket, mark_ms = unpack(ARGV)
local at = now()

local function is_unended(id)
  local status = get(id, 'status')
  return status and next(MOVES[status])
end

-- Returns how many workers were lost over it while it was alone; nil when it need not be alone.
local function take(id, found)
  local before = count(id, 'losses:' .. SINGLE)
  local losses = take_lease(id, SINGLE, token, worker, at, lease_ms)
  redis.call('HSETNX', job_key(id), 'started_at', int(at))
  move(id, 'running')
  found[#found + 1] = id
  found[#found + 1] = get(id, 'input')
  if losses > before and get(id, 'alone') then
    redis.call('HINCRBY', job_key(id), 'alone', 1)
  end
  if losses >= 2 then
    redis.call('HSETNX', job_key(id), 'alone', 0)
    return count(id, 'alone')
  end
end

for i = 7, #ARGV do
  local inbox = inbox_key(ARGV[i])
  if redis.call('GET', inbox .. ':mark') == ticket then
    redis.call('PEXPIRE', inbox .. ':mark', mark_ms)
  end
  local found, rest, alone = { ARGV[i], 0 }, {}, nil
  for _, id in ipairs(redis.call('LPOP', inbox, most) or {}) do
    local suspect = count(id, 'losses:' .. SINGLE) >= 1 and get(id, 'lease')
    if alone or (suspect and #found > 2) then
      rest[#rest + 1] = id
    elseif is_unended(id) then
      alone = take(id, found)
      found[2] = alone or 0
    end
  end
  for j = #rest, 1, -1 do
    redis.call('LPUSH', inbox, rest[j])
    redis.call('EXPIRE', inbox, LIMITS.life)
  end
  if #found > 2 then
    return found
  end
end
return {}
