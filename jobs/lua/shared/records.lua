-- The record of a job: made, moved from status to status, ended, erased.

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

-- Puts a new job into the lists. Two old entries are looked at for each new one, so that the list never holds many jobs
-- that are gone.
local function enlist(id, kind, tenant, at)
  redis.call('ZADD', unended(kind), int(at), id)
  local index = index_key(tenant, kind)
  redis.call('ZADD', index, int(at), id)
  redis.call('EXPIRE', index, math.max(LIMITS.life, LIMITS.tombstone_ttl))
  for _, old in ipairs(redis.call('ZRANGE', index, 0, 1)) do
    if redis.call('EXISTS', job_key(old)) == 0 then
      redis.call('ZREM', index, old)
    end
  end
end

-- Writes the new record of a batch with its tombstone.
local function create_batch(id, tenant, at, fields)
  redis.call('HSET', job_key(id), 'kind', 'batch', 'tenant', tenant, 'created_at', int(at), 'revision', 1,
    unpack(fields))
  redis.call('EXPIRE', job_key(id), LIMITS.life)
  bury(id, 'job_expired', at)
  enlist(id, 'batch', tenant, at)
end

-- Gives an upload its time until the next sign of life.
local function extend_upload(id, at)
  redis.call('ZADD', key('receiving'), int(at + LIMITS.upload_deadline * 1000), id)
end

-- Adds what a job that retries `old` has in common with it to the fields of its record.
local function inherit(old, names, fields)
  for _, name in ipairs(names) do
    local value = get(old, name)
    if value then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  return fields
end

-- The one place where the status of a batch changes. Single predictions, of which there are many, are ended, and
-- mostly begun, together with their other fields (lease_inbox.lua, singles.lua). Returns false and the current status
-- when the move is not in the table.
local function move(id, wanted)
  local current = get(id, 'status')
  if not current or not MOVES[current][wanted] then
    return false, current
  end
  redis.call('HSET', job_key(id), 'status', wanted)
  if kind_of(id) == 'batch' then -- that of a single prediction follows from its status
    redis.call('HINCRBY', job_key(id), 'revision', 1)
  end
  tell(id, not next(MOVES[wanted]))
  return true
end

-- Takes a single prediction out of every list of work.
local function withdraw_single(id)
  redis.call('HDEL', job_key(id), 'lease')
  if redis.call('ZREM', key('leases'), leased(id, SINGLE)) == 0 then -- only then can it be in the inbox
    redis.call('LREM', inbox_key(get(id, 'model_key')), 1, id)
  end
  redis.call('ZREM', unended('single'), id)
end

-- Takes a batch out of every list of work.
local function withdraw_batch(id)
  for _, index in ipairs(redis.call('HKEYS', job_key(id, 'leases'))) do
    redis.call('ZREM', key('leases'), leased(id, index))
  end
  redis.call('LREM', inbox_batches(get(id, 'model_key')), 1, id)
  redis.call('DEL', job_key(id, 'waiting'), job_key(id, 'leases'), job_key(id, 'slots'), job_key(id, 'parts'))
  free_unaccepted_key(id)
  redis.call('ZREM', unended('batch'), id)
  redis.call('HDEL', key('promised'), id)
end

-- Whether an upload has neither been accepted nor canceled: also a job that has failed before it was closed is still
-- its web process's, or the sweep's, to take back.
local function is_unaccepted(id)
  local status = get(id, 'status')
  return status == 'receiving' or status == 'failed' and get(id, 'upload') and not get(id, 'closed')
end

-- Ends a batch: one absolute expiry on all its keys. Returns what move returns.
local function finish_batch(id, wanted, at, code, message)
  local moved, current = move(id, wanted)
  if not moved then
    return false, current
  end
  withdraw_batch(id)
  if not is_unaccepted(id) then
    redis.call('ZREM', key('receiving'), id)
  end
  local expires_at = at + LIMITS.results_ttl * 1000
  redis.call('HSET', job_key(id), 'ended_at', int(at), 'expires_at', int(expires_at))
  if code then
    redis.call('HSET', job_key(id), 'error_code', code, 'error_message', message)
  end
  redis.call('HSETNX', job_key(id), 'rows_total', int(count(id, 'rows_received')))
  expire(id, LIMITS.results_ttl)
  bury(id, 'job_expired', expires_at)
  return true
end

-- Ends a batch whose every row has its outcome.
local function finish_by_counts(id, at)
  if count(id, 'rows_ok') > 0 then
    return finish_batch(id, 'succeeded', at)
  end
  return finish_batch(id, 'failed', at, 'all_rows_failed', 'No row has a prediction; /errors says why for each of them.')
end

-- Erases a job at once; only its tombstone stays, and says `reason`.
local function erase(id, reason, at)
  local kind = kind_of(id)
  bury(id, reason, at)
  if kind == 'single' then
    withdraw_single(id)
  else
    withdraw_batch(id)
    redis.call('ZREM', key('receiving'), id)
  end
  redis.call('ZREM', index_key(get(id, 'tenant'), kind), id)
  tell(id, true)
  redis.call('DEL', job_key(id))
  for _, part in ipairs(PARTS) do
    redis.call('DEL', job_key(id, part))
  end
end
