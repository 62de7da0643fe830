-- Needs _request and _sound.
-- mail_to(n, key, arg): an empty letter to each of n mailboxes, by name; the streams are the KEYS after `key`, the names the
--   ARGV after `arg`.
-- tell(mail, waiting, request_id): writes the id of an answered request into the letters to those who wait for it.
-- send(mail, keep_ms, channel_prefix): appends each letter that is not empty to its stream, and gives notice.
local function mail_to(n, key, arg)
  local mail = {}
  for m = 1, n do
    mail[ARGV[arg + m]] = {stream = KEYS[key + m]}
  end
  return mail
end

local function tell(mail, waiting, request_id)
  for _, name in ipairs(names(waiting)) do
    table.insert(mail[name], request_id)
  end
end

local function send(mail, keep_ms, channel_prefix)
  for name, letter in pairs(mail) do
    if #letter > 0 then
      if not of_type(letter.stream, 'stream') then
        redis.call('UNLINK', letter.stream)
      end
      redis.call('XADD', letter.stream, 'MAXLEN', '~', 20000, '*', 'ids', table.concat(letter, ' '))
      redis.call('PEXPIRE', letter.stream, keep_ms)
      redis.call('PUBLISH', channel_prefix .. name, '')
    end
  end
end
