#!lua flags=allow-oom
-- Leases the single predictions that wait in the first inbox that has any.
-- ARGV: token, milliseconds of the lease, how many at most, ticket, milliseconds of the mark, then model keys
-- Returns {} or {model key, id, input, id, input, …}.
local token, lease_ms, most, ticket, mark_ms = unpack(ARGV)
local at = now()
for i = 6, #ARGV do
  local inbox = inbox_key(ARGV[i])
  if redis.call('GET', inbox .. ':mark') == ticket then
    redis.call('PEXPIRE', inbox .. ':mark', mark_ms)
  end
  local ids = redis.call('LPOP', inbox, most)
  local found = { ARGV[i] }
  for _, id in ipairs(ids or {}) do
    local status = get(id, 'status')
    if status and next(MOVES[status]) then
      redis.call('HSET', job_key(id), 'lease', token)
      redis.call('HSETNX', job_key(id), 'started_at', int(at))
      redis.call('ZADD', key('leases'), int(at + lease_ms), leased(id, SINGLE))
      move(id, 'running')
      found[#found + 1] = id
      found[#found + 1] = get(id, 'input')
    end
  end
  if #found > 1 then
    return found
  end
end
return {}
