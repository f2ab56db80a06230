#!lua flags=allow-oom
-- Renews leases.
-- ARGV: milliseconds of the lease, slot, ticket, then id, index, token of each lease
-- Returns the positions (from 1) of the leases that are lost: leased to another, canceled, deleted or ended.
local lease_ms, slot, ticket = unpack(ARGV)
local at = now()
local lost = {}
for i = 4, #ARGV, 3 do
  local id, index, token = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if holds(id, index, token) then
    if redis.call('ZADD', key('leases'), int(at + lease_ms), leased(id, index)) == 1 then
      -- The sweep had put it back, and nobody has taken it since.
      if index == SINGLE then
        redis.call('LREM', inbox_key(get(id, 'model_key')), 0, id)
      else
        redis.call('LREM', job_key(id, 'waiting'), 0, index)
      end
    end
    if index ~= SINGLE then
      touch_slot(id, slot, ticket, at)
    end
  else
    lost[#lost + 1] = (i - 1) / 3
  end
end
return lost
