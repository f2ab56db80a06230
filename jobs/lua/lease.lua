#!lua flags=allow-oom
-- Leases the next waiting chunk of a batch to a worker.
-- ARGV: id, token, worker, milliseconds of the lease, slot, ticket, ahead ('1': only if other workers find chunks all the
--       same)
-- Returns {'chunk', index, rows, blob, tickets that wait for a worker, workers lost over it, state of its search ('':
-- there is none), rows per second of the model ('': nobody knows), chunks that were doubted in a job without any
-- prediction (doubt.lua), 1 when it was disturbed (give_back.lua), mark of a patch ('': none), result and failures that
-- are patched}; {'none'} when no chunk waits; {'gone'} when the job has ended or is gone.
local id, token, worker, lease_ms, slot, ticket, ahead = unpack(ARGV)
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
local losses = take_lease(id, index, token, worker, at, lease_ms)
redis.call('HSETNX', job_key(id), 'started_at', int(at))
if status == 'queued' then
  move(id, 'running')
end
touch_slot(id, slot, ticket, at)
expire(id, LIMITS.life)
redis.call('SET', key('turn'), 'batch', 'EX', 60)
local doubted = count(id, 'rows_ok') == 0 and count(id, 'doubted') or 0
return {
  'chunk', index, redis.call('HGET', job_key(id, 'rows'), index), redis.call('HGET', job_key(id, 'inputs'), index) or '',
  redis.call('LLEN', TICKETS), losses, redis.call('HGET', job_key(id, 'parts'), index) or '',
  rate(get(id, 'model_key')), doubted, count(id, 'disturbed:' .. index), patch(id, index),
}
