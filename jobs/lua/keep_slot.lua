#!lua flags=allow-oom
-- At the end of a slice: hands the slot on to the next ticket while chunks wait, and frees it otherwise.
-- Only the ticket that owns the slot may queue itself again: so duplicates die out.
-- ARGV: id, slot, ticket, next ticket
-- Returns 1 when the next ticket is to be put, else 0.
local id, slot, ticket, following = unpack(ARGV)
local held = holder(id, slot)
if held == following then
  return 1 -- asked again: the answer was lost
end
if held ~= ticket then
  return 0
end
if redis.call('LLEN', job_key(id, 'waiting')) == 0 then
  redis.call('HDEL', job_key(id, 'slots'), slot)
  return 0
end
redis.call('HSET', job_key(id, 'slots'), slot, following .. ' ' .. int(now()))
return 1
