-- What wrk asks for: wrk -s requests.lua URL -- KIND ENTRY PATHS
--   KIND   get, post, put, delete or mix
--   ENTRY  file with the body of what is sent
--   PATHS  file with the path of an entry in each line
-- Requests are formatted once, so that wrk is never what is measured.

local headers = {['Content-Type'] = 'application/json'}
local kind, body
local gets, puts, made = {}, {}, {}
local number = 0

local function read(path)
    local file = assert(io.open(path, 'rb'))
    local text = file:read('*a')
    file:close()
    return text
end

function init(arguments)
    kind, body = arguments[1], read(arguments[2])
    post = wrk.format('POST', '/addressbook', headers, body)
    for path in read(arguments[3]):gmatch('%S+') do
        gets[#gets + 1] = wrk.format('GET', path)
        puts[#puts + 1] = wrk.format('PUT', path, headers, body)
    end
    if kind == 'delete' then
        response = keep_path
    end
end

local function turn(requests)
    return requests[number % #requests + 1]
end

local kinds = {
    get = function() return turn(gets) end,
    put = function() return turn(puts) end,
    post = function() return post end,
    -- Of twenty: eighteen reads, one new entry, one that is replaced.
    mix = function()
        local place = number % 20
        return place == 7 and post or place == 14 and turn(puts) or turn(gets)
    end,
    -- Deletes what it has made before, so that there is always something left to delete.
    delete = function()
        local path = table.remove(made)
        return path and wrk.format('DELETE', path) or post
    end,
}

function request()
    number = number + 1
    return kinds[kind]()
end

function keep_path(status, answer)
    if status == 201 then
        made[#made + 1] = answer['Location'] or answer['location']
    end
end
