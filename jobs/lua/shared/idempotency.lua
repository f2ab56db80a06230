-- Idempotency keys: who has one, and for how long.

local UPLOAD_SILENCE_MS = math.min(10000, LIMITS.upload_deadline * 1000) -- api/upload.py gives four signs of life in it
local KEY_TTL = math.max(LIMITS.tombstone_ttl, 24 * 3600) -- of an idempotency key, and of the tombstone of its job

local function idempotency_key(tenant, digest)
  return PREFIX .. 'idempotency:' .. tenant .. ':' .. digest
end

-- The job that has an idempotency key, and the fingerprint of its request: '' while its body still arrives.
local function key_owner(tenant, digest)
  return string.match(redis.call('GET', idempotency_key(tenant, digest)) or '', '^(%S+) ?(%S*)$')
end

-- Whether a job that is there has the idempotency key that it came with.
local function has_key(id)
  local digest = get(id, 'idempotency')
  return digest and key_owner(get(id, 'tenant'), digest) == id
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
