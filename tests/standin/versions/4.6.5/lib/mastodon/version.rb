module Mastodon
  VERSION = "4.6.5".freeze
end
