class WebPushSubscription < ApplicationRecord
  belongs_to :user
end
