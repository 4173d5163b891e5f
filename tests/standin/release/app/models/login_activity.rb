# Every attempt to sign in, good or bad.
class LoginActivity < ApplicationRecord
  belongs_to :user
end
