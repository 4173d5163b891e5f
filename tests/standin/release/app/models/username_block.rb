class UsernameBlock < ApplicationRecord
  before_validation { self.normalized_username = username.downcase.delete("^a-z0-9") if username }

  def self.matches?(name)
    plain = name.downcase.delete("^a-z0-9")
    where(exact: true, normalized_username: plain).or(where("NOT exact AND strpos(?, normalized_username) > 0", plain)).exists?
  end
end
