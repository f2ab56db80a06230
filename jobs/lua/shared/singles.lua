-- Single predictions, whose record is small: below 64 bytes a field, so that the store packs it (jobs/pieces.py).

local MOST_PIECES = 16 -- jobs/pieces.py has the same
local MOST_TOLD_BYTES = 4096 -- a result that is longer is read from the record

-- The fields that a text may be stored in: `name`, `name:1`, `name:2`, …
local function piece_names(name)
  local names = { name }
  for i = 1, MOST_PIECES - 1 do
    names[#names + 1] = name .. ':' .. i
  end
  return names
end

local INPUT = piece_names('input')

-- What a single prediction was sent.
local function input_of(id)
  local pieces = redis.call('HMGET', job_key(id), unpack(INPUT))
  for i = #pieces, 1, -1 do
    if not pieces[i] then
      pieces[i] = nil
    end
  end
  return table.concat(pieces)
end

-- Writes a new record and puts it into the lists. Its id says by itself that it was there (jobs/ids.py), so it has a
-- tombstone only if it has an idempotency key.
local function create_single(id, tenant, model_key, digest, fields, at)
  redis.call('HSET', job_key(id), 'status', 'queued', 'created_at', int(at), 'tenant', tenant, 'model_key', model_key,
    'digest', digest, unpack(fields))
  redis.call('EXPIRE', job_key(id), LIMITS.life)
  enlist(id, 'single', tenant, at)
end

-- Ends a single prediction; `changes` are fields of its record. Returns what move returns.
local function finish_single(id, wanted, at, changes)
  local status, key_digest, attempts, started_at = unpack(redis.call('HMGET', job_key(id),
    'status', 'idempotency', 'attempts', 'started_at'))
  if not status or not MOVES[status][wanted] then
    return false, status
  end
  withdraw_single(id)
  local expires_at = at + LIMITS.single_ttl * 1000
  redis.call('HSET', job_key(id), 'status', wanted, 'ended_at', int(at), unpack(changes))
  redis.call('EXPIRE', job_key(id), LIMITS.single_ttl)
  if attempts then
    redis.call('EXPIRE', job_key(id, 'attempts'), LIMITS.single_ttl)
  end
  if key_digest then
    bury(id, 'job_expired', expires_at)
  end
  local told
  if not attempts and #table.concat(changes) <= MOST_TOLD_BYTES then
    told = { 'status', wanted, 'ended_at', int(at), 'expires_at', int(expires_at), 'started_at', started_at or '',
      unpack(changes) }
  end
  tell(id, true, told)
  return true
end

-- Ends a job of either kind. Returns what move returns.
local function finish(id, wanted, at, code, message)
  if kind_of(id) == 'single' then
    return finish_single(id, wanted, at, code and { 'error_code', code, 'error_message', message } or {})
  end
  return finish_batch(id, wanted, at, code, message)
end
