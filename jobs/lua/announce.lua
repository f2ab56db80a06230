#!lua flags=allow-oom
-- A worker says that it lives, what it does, and which model versions it has.
-- ARGV: worker, state ('idle' | 'busy' | 'gone'), then model keys
local worker, state = unpack(ARGV)
if state == 'gone' then
  redis.call('ZREM', key('workers'), worker)
  redis.call('DEL', key('worker:' .. worker))
  -- What it could not hand back, because the store was away just then, is no attempt.
  redis.call('SET', key('stopped:' .. worker), '1', 'EX', 600)
  return 'ok'
end
redis.call('ZADD', key('workers'), int(now()), worker)
redis.call('SET', key('worker:' .. worker), state, 'PX', WORKER_SILENCE_MS)
for i = 3, #ARGV do
  redis.call('SET', key('served:' .. ARGV[i]), '1', 'PX', WORKER_SILENCE_MS)
  redis.call('DEL', key('unserved:' .. ARGV[i])) -- if it is missed again, then for how long since now
end
return 'ok'
