class Identity < ApplicationRecord
  belongs_to :user
end
