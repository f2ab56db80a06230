-- What every script shares: put in front of each of them when they are loaded (jobs/scripts.py), behind two tables
-- that are made from Python: MOVES (jobs/status.py) and LIMITS (jobs/scripts.py).
--
-- Keys are made here from the id of a job, so KEYS is empty everywhere: a store is one node, never a cluster.
-- The list of all keys stands at the head of jobs/store.py.

local PREFIX = 'qc:'
local PARTS = {
  'waiting', 'inputs', 'rows', 'leases', 'results', 'failures', 'done', 'slots', 'attempts', 'parts', 'patches',
}
local WORKER_SILENCE_MS = 10000 -- a worker that has not announced itself for so long does not count as live
local UPLOAD_SILENCE_MS = math.min(10000, LIMITS.upload_deadline * 1000) -- api/upload.py gives four signs of life in it
local KEY_TTL = math.max(LIMITS.tombstone_ttl, 24 * 3600) -- of an idempotency key, and of the tombstone of its job
local SLOT_SILENCE_MS = 2000 -- a slot without a lease for so long is free if its ticket waits nowhere
local LOST_WORKER_MS = 4000 -- twice the time between two announcements of a worker
local LOOKED_AT = 20 -- of the last attempts, when one is written down that may be there already
local MOST_ATTEMPTS = 100 -- that are kept of a job: a model that always crashes would fill the store
local SINGLE = 's' -- stands in for the chunk's index where a single prediction is leased

local function key(name)
  return PREFIX .. name
end

local function job_key(id, part)
  if part then
    return PREFIX .. 'job:' .. id .. ':' .. part
  end
  return PREFIX .. 'job:' .. id
end

local function inbox_key(model_key)
  return PREFIX .. 'inbox:' .. model_key
end

local function int(number)
  return string.format('%.0f', number)
end

-- Milliseconds since the epoch by the store's clock: the only clock that decides anything.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function get(id, field)
  return redis.call('HGET', job_key(id), field)
end

local function count(id, field)
  return tonumber(get(id, field) or 0)
end

local function unended(kind)
  return key(kind == 'single' and 'singles' or 'batches')
end

local function index_key(tenant, kind)
  return key('jobs:' .. tenant .. ':' .. kind)
end

local function leased(id, index)
  return id .. ' ' .. index
end

local function idempotency_key(tenant, digest)
  return PREFIX .. 'idempotency:' .. tenant .. ':' .. digest
end

-- The job that has an idempotency key, and the fingerprint of its request: '' while its body still arrives.
local function key_owner(tenant, digest)
  return string.match(redis.call('GET', idempotency_key(tenant, digest)) or '', '^(%S+) ?(%S*)$')
end

-- Whether an upload still goes on: one without a sign of life has lost its web process.
local function is_uploading(id, at)
  local deadline = redis.call('ZSCORE', key('receiving'), id)
  return deadline and tonumber(deadline) - LIMITS.upload_deadline * 1000 + UPLOAD_SILENCE_MS > at
end

-- Gives a job its idempotency key: for good with a fingerprint, else until its upload ends.
local function take_key(id, tenant, digest, fingerprint)
  redis.call('HSET', job_key(id), 'idempotency', digest)
  redis.call('SET', idempotency_key(tenant, digest), fingerprint == '' and id or id .. ' ' .. fingerprint, 'EX', KEY_TTL)
end

-- Frees the idempotency key of a job that was never accepted.
local function free_unaccepted_key(id)
  local tenant, digest = get(id, 'tenant'), get(id, 'idempotency')
  if digest then
    local owner, fingerprint = key_owner(tenant, digest)
    if owner == id and fingerprint == '' then
      redis.call('DEL', idempotency_key(tenant, digest))
    end
  end
end

-- What to answer once the record is gone, and when that happened. A job that has an idempotency key keeps it as long.
local function bury(id, reason, at)
  local tenant, digest = get(id, 'tenant'), get(id, 'idempotency')
  local ttl = digest and KEY_TTL or LIMITS.tombstone_ttl
  redis.call('SET', key('tombstone:' .. id), reason .. ' ' .. int(at) .. ' ' .. tenant, 'EX', ttl)
  if digest and key_owner(tenant, digest) == id then
    redis.call('EXPIRE', idempotency_key(tenant, digest), ttl)
  end
end

local function expire(id, seconds)
  redis.call('EXPIRE', job_key(id), seconds)
  for _, part in ipairs(PARTS) do
    redis.call('EXPIRE', job_key(id, part), seconds)
  end
end

-- Writes a new record with its tombstone and puts it into the lists.
local function create(id, kind, at, fields)
  redis.call('HSET', job_key(id), 'kind', kind, 'created_at', int(at), 'revision', 1, unpack(fields))
  redis.call('EXPIRE', job_key(id), LIMITS.life)
  bury(id, 'job_expired', at)
  local tenant = get(id, 'tenant')
  redis.call('ZADD', unended(kind), int(at), id)
  redis.call('ZADD', index_key(tenant, kind), int(at), id)
  redis.call('EXPIRE', index_key(tenant, kind), math.max(LIMITS.life, LIMITS.tombstone_ttl))
  -- Two old entries are looked at for each new one, so that the list never holds many jobs that are gone.
  for _, old in ipairs(redis.call('ZRANGE', index_key(tenant, kind), 0, 1)) do
    if redis.call('EXISTS', job_key(old)) == 0 then
      redis.call('ZREM', index_key(tenant, kind), old)
    end
  end
end

-- The one place where a status changes. Returns false and the current status when the move is not in the table.
local function move(id, wanted)
  local current = get(id, 'status')
  if not current or not MOVES[current][wanted] then
    return false, current
  end
  redis.call('HSET', job_key(id), 'status', wanted)
  redis.call('HINCRBY', job_key(id), 'revision', 1)
  return true
end

-- Takes a job out of every list of work.
local function withdraw(id)
  for _, index in ipairs(redis.call('HKEYS', job_key(id, 'leases'))) do
    redis.call('ZREM', key('leases'), leased(id, index))
  end
  local kind = get(id, 'kind')
  if kind == 'single' then
    redis.call('HDEL', job_key(id), 'lease')
    if redis.call('ZREM', key('leases'), leased(id, SINGLE)) == 0 then -- only then can it be in the inbox
      redis.call('LREM', inbox_key(get(id, 'model_key')), 0, id)
    end
  else
    redis.call('DEL', job_key(id, 'waiting'), job_key(id, 'leases'), job_key(id, 'slots'), job_key(id, 'parts'))
  end
  free_unaccepted_key(id)
  redis.call('ZREM', unended(kind), id)
  redis.call('ZREM', key('receiving'), id)
  redis.call('HDEL', key('promised'), id)
end

-- Ends a job: one absolute expiry on all its keys. Returns what move returns.
local function finish(id, wanted, at, code, message)
  local moved, current = move(id, wanted)
  if not moved then
    return false, current
  end
  withdraw(id)
  local ttl = get(id, 'kind') == 'single' and LIMITS.single_ttl or LIMITS.results_ttl
  local expires_at = at + ttl * 1000
  redis.call('HSET', job_key(id), 'ended_at', int(at), 'expires_at', int(expires_at))
  if code then
    redis.call('HSET', job_key(id), 'error_code', code, 'error_message', message)
  end
  redis.call('HSETNX', job_key(id), 'rows_total', int(count(id, 'rows_received')))
  expire(id, ttl)
  bury(id, 'job_expired', expires_at)
  return true
end

-- Ends a batch whose every row has its outcome.
local function finish_by_counts(id, at)
  if count(id, 'rows_ok') > 0 then
    return finish(id, 'succeeded', at)
  end
  return finish(id, 'failed', at, 'all_rows_failed', 'No row has a prediction; /errors says why for each of them.')
end

-- Erases a job at once; only its tombstone stays, and says `reason`.
local function erase(id, reason, at)
  bury(id, reason, at)
  withdraw(id)
  redis.call('ZREM', index_key(get(id, 'tenant'), get(id, 'kind')), id)
  redis.call('DEL', job_key(id))
  for _, part in ipairs(PARTS) do
    redis.call('DEL', job_key(id, part))
  end
end

-- Why a new job cannot have an idempotency key: nothing when it can, 'same <id>' when the same request has made a job.
-- `fingerprint` is '' while the body of the new job arrives.
local function key_refusal(tenant, digest, fingerprint, at)
  local owner, bound
  if digest ~= '' then
    owner, bound = key_owner(tenant, digest)
  end
  if not owner then
    return nil
  end
  if bound == '' and not is_uploading(owner, at) then
    if get(owner, 'status') == 'receiving' then
      erase(owner, 'upload_failed', at)
    end
    return nil
  end
  if bound == '' or fingerprint == '' then
    return 'idempotency_key_in_use'
  end
  return bound == fingerprint and 'same ' .. owner or 'idempotency_key_reused'
end

-- Why an upload cannot go on: false when it can.
local function refusal(id, token)
  local status = get(id, 'status')
  if not status then
    local tombstone = redis.call('GET', key('tombstone:' .. id))
    return tombstone and string.match(tombstone, '^%S+') or 'upload_failed'
  end
  if get(id, 'upload') ~= token then
    return 'upload_failed'
  end
  if status == 'receiving' then
    return false
  end
  return 'job_' .. status
end

local function live_workers(at)
  return redis.call('ZCOUNT', key('workers'), int(at - WORKER_SILENCE_MS), '+inf')
end

-- Adds what a job that retries `old` has in common with it to the fields of its record.
local function inherit(old, names, fields)
  for _, name in ipairs(names) do
    fields[#fields + 1] = name
    fields[#fields + 1] = get(old, name)
  end
  return fields
end

-- Puts a new single prediction into its model's inbox. Returns 'ok' when a valid mark stands, so a worker is on its way,
-- else where to put the ticket: 'front', or 'back' if no batch slice ran since the last one (neither starves the other).
local function wait_in_inbox(id, ticket, mark_ms)
  local model_key = get(id, 'model_key')
  local inbox = inbox_key(model_key)
  redis.call('RPUSH', inbox, id)
  redis.call('EXPIRE', inbox, LIMITS.life)
  redis.call('SADD', key('inboxes'), model_key)
  if live_workers(now()) == 0 and redis.call('LLEN', TICKETS) > 0 then
    return 'ok' -- nobody is there to take tickets; the sweep asks when somebody is
  end
  if not redis.call('SET', inbox .. ':mark', ticket, 'NX', 'PX', mark_ms) then
    return 'ok'
  end
  return redis.call('SET', key('turn'), 'inbox', 'GET', 'EX', 60) == 'inbox' and 'back' or 'front'
end

-- Hands out the free slots of a batch: as many as it has waiting chunks, at most one for each live worker.
-- Returns the ids of the tickets to put, one for each slot that was handed out.
local function grant(id, at, nonce)
  local live = live_workers(at)
  local slots = math.min(redis.call('LLEN', job_key(id, 'waiting')), math.max(live, 1))
  if redis.call('LLEN', TICKETS) > 2 * live then
    slots = math.min(slots, 1) -- far behind: more would only make the queue longer
  end
  local tickets = {}
  for slot = 0, slots - 1 do
    local ticket = id .. '-' .. slot .. '-' .. nonce
    if redis.call('HSETNX', job_key(id, 'slots'), slot, ticket .. ' ' .. int(at)) == 1 then
      tickets[#tickets + 1] = ticket
    end
  end
  redis.call('EXPIRE', job_key(id, 'slots'), LIMITS.life)
  return tickets
end

local function holder(id, slot)
  local held = redis.call('HGET', job_key(id, 'slots'), slot)
  if not held then
    return false
  end
  local ticket, touched = string.match(held, '^(%S+) (%d+)$')
  return ticket, tonumber(touched)
end

-- Says that the ticket is at work on its slot. False when the slot is another's.
local function touch_slot(id, slot, ticket, at)
  if holder(id, slot) ~= ticket then
    return false
  end
  redis.call('HSET', job_key(id, 'slots'), slot, ticket .. ' ' .. int(at))
  return true
end

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

-- How many bytes the store has for what is not promised yet; nil when it has no limit.
-- What running batches will still write is promised: so uploads never starve results.
local function room()
  local memory = redis.call('INFO', 'memory')
  local budget = LIMITS.store_budget
  if budget == 0 then
    -- A fifth stays free for buffers of connections, for fragmentation and for what is written while it is full.
    budget = 0.8 * tonumber(string.match(memory, '\nmaxmemory:(%d+)'))
  end
  if budget == 0 then
    return nil
  end
  local promised = 0
  for _, bytes in ipairs(redis.call('HVALS', key('promised'))) do
    promised = promised + tonumber(bytes)
  end
  return budget - tonumber(string.match(memory, 'used_memory:(%d+)')) - promised
end

-- Nothing when there is room for so many bytes, else 'full <bytes> <free bytes>'.
local function shortage(bytes)
  local free = room()
  if free and bytes > free then
    return 'full ' .. int(bytes) .. ' ' .. int(math.max(free, 0))
  end
end

-- Changes what a batch is expected to write still; what was estimated too low is not counted against others.
local function promise(id, bytes)
  local left = tonumber(redis.call('HGET', key('promised'), id) or 0) + bytes
  if left > 0 then
    redis.call('HSET', key('promised'), id, int(left))
  else
    redis.call('HDEL', key('promised'), id)
  end
end

-- Rows per second that one worker does of a model, with all that goes with it; nil while nobody has measured.
local function rate(model_key)
  return tonumber(redis.call('GET', key('rate:' .. model_key)) or nil)
end

-- Follows the measured speed of a model; the last chunks count most.
local function learn_rate(model_key, rows, seconds)
  if rows == 0 or seconds <= 0 then
    return
  end
  local measured, known = rows / seconds, rate(model_key)
  redis.call('SET', key('rate:' .. model_key), string.format('%.6g', known and 0.7 * known + 0.3 * measured or measured),
    'EX', LIMITS.life)
end

-- A batch's own rows per second over the last seconds: a sum that fades, so that old rows stop to count.
local PACE_SECONDS = 5
local function keep_pace(id, rows, at)
  local pace = tonumber(get(id, 'pace') or 0)
  local since = (at - tonumber(get(id, 'paced_at') or get(id, 'started_at') or at)) / 1000
  pace = pace * math.exp(-math.max(since, 0) / PACE_SECONDS) + rows / PACE_SECONDS
  redis.call('HSET', job_key(id), 'pace', string.format('%.6g', pace), 'paced_at', int(at))
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

-- Drops what the search for a poison row has kept of a chunk.
local function forget_search(id, index)
  if redis.call('HDEL', job_key(id, 'parts'), index) == 0 then
    return
  end
  local prefix = index .. ':'
  for _, field in ipairs(redis.call('HKEYS', job_key(id, 'parts'))) do
    if string.sub(field, 1, #prefix) == prefix then
      redis.call('HDEL', job_key(id, 'parts'), field)
    end
  end
end

-- What the results of a retried chunk are merged into (jobs/codec/patch.py): '<kind> <rows that have their prediction all
-- the same>', the result and the failures of the earlier job. Three empty texts for any other chunk.
local function patch(id, index)
  local found = redis.call('HMGET', job_key(id, 'patches'), index, index .. ':result', index .. ':failures')
  return found[1] or '', found[2] or '', found[3] or ''
end

-- Drops what the results of a chunk were merged into. Returns how many of its rows were counted as predicted already;
-- nil when it was not merged.
local function forget_patch(id, index)
  local mark = redis.call('HGET', job_key(id, 'patches'), index)
  if not mark then
    return nil
  end
  redis.call('HDEL', job_key(id, 'patches'), index, index .. ':result', index .. ':failures')
  return tonumber(string.match(mark, '%d+$'))
end

-- Follows how many chunks from the first are done without a gap.
local function move_prefix(id)
  local prefix = count(id, 'prefix')
  while redis.call('HEXISTS', job_key(id, 'done'), prefix) == 1 do
    prefix = prefix + 1
  end
  redis.call('HSET', job_key(id), 'prefix', prefix)
end

-- Whether every chunk that this batch has to do is done, once all have come.
local function is_through(id)
  return count(id, 'chunks_done') + count(id, 'chunks_left_alone') == count(id, 'chunks_received')
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
