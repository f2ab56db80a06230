#!lua flags=allow-oom
-- Leases the next waiting chunk of a batch to a worker.
-- ARGV: id, token, milliseconds of the lease, slot, ticket, ahead ('1': only if other workers find chunks all the same)
-- Returns {'chunk', index, rows, crashes, blob, tickets that wait for a worker}; {'none'} when no chunk waits; {'gone'}
-- when the job has ended or is gone.
local id, token, lease_ms, slot, ticket, ahead = unpack(ARGV)
local status = get(id, 'status')
if not status or not next(MOVES[status]) then
  return { 'gone' }
end
local at = now()
-- The last chunks go to whoever is free first: one that was taken ahead would have another worker wait for it.
if ahead == '1' and redis.call('LLEN', job_key(id, 'waiting')) < live_workers(at) then
  return { 'none' }
end
local index = redis.call('LPOP', job_key(id, 'waiting'))
if not index then
  return { 'none' }
end
redis.call('HSET', job_key(id, 'leases'), index, token)
redis.call('ZADD', key('leases'), int(at + lease_ms), leased(id, index))
redis.call('HSETNX', job_key(id), 'started_at', int(at))
if status == 'queued' then
  move(id, 'running')
end
touch_slot(id, slot, ticket, at)
expire(id, LIMITS.life)
redis.call('SET', key('turn'), 'batch', 'EX', 60)
return {
  'chunk', index, redis.call('HGET', job_key(id, 'rows'), index),
  redis.call('HGET', job_key(id, 'crashes'), index) or '0', redis.call('HGET', job_key(id, 'inputs'), index),
  redis.call('LLEN', TICKETS),
}
