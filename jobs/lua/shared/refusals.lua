-- Why a job or an upload is not taken.

-- Whether this is still the life of the store that an id was made for.
local function is_current(generation)
  return redis.call('GET', key('generation')) == generation
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
