module Mastodon
  VERSION = "4.5.15".freeze
end
