#!lua flags=allow-oom
-- Ends the work of a ticket on an inbox: clears its mark only if nothing waits there.
-- ARGV: model key, ticket, next ticket ('' when the same one goes on), milliseconds of the mark
-- Returns 1 when there is more to do and it is this ticket's to go on (its mark is the next ticket's then), else 0.
local model_key, ticket, following, mark_ms = unpack(ARGV)
local mark = redis.call('GET', inbox_mark(model_key))
if mark and mark == following then
  return 1 -- asked again: the answer was lost
end
if mark and mark ~= ticket then
  return 0
end
if waiting_in(model_key) == 0 then
  redis.call('DEL', inbox_mark(model_key), inbox_bell(model_key))
  redis.call('SREM', key('inboxes'), model_key)
  return 0
end
redis.call('SET', inbox_mark(model_key), following ~= '' and following or ticket, 'PX', mark_ms)
return 1
